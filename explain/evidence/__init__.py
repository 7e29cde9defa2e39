"""Evidence by block: should it stay frozen?

One scorer a file, one protocol: a score for each block or each freeze depth, its null, its cost::

    from explain.evidence import SCORERS, depth_prior, depth_scores, gather

    material = gather(model, blocks, images, labels, training, after=fine_tuned)
    for scorer in SCORERS.values():
        if scorer.can_read(material) and not scorer.options:  # those with options ask for more
            scores = scorer(material)
            prior = depth_prior(depth_scores(scores).values)
            print(scores.scorer, scores.values, scores.z, scores.cost, prior.mode)

Importing this package loads neither torch nor anything else that is slow; the first use of a name does. The names stand
in `__init__.pyi`.
"""

from __future__ import annotations

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
