"""The steps of monthly retraining: ledger, drift, depth of retraining, comparison, promotion, page."""
