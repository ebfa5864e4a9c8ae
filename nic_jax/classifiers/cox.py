"""The loss of survival: Cox's partial likelihood of risks, whatever the baseline hazard."""

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp


@jax.jit
def negative_log_partial_likelihood(
    risks: jax.Array, times: jax.Array, events: jax.Array, *, mask: jax.Array | None = None
) -> jax.Array:
    """Mean over the deaths of −[f_i − log Σ_{j at risk} exp f_j], the loss of the multitask paper.

    Deaths at one time are weighed by Efron's approximation: of the d who die together, the l-th
    (from 0) is compared with all at risk, of whom those d count 1 − l/d each. At risk at a time are
    those of this batch who die or are censored then or later, so a batch should hold many slides,
    and several deaths.

    Takes memory for a few arrays [B, B]; finite, as its gradient is, for all finite risks.

    Args:
        risks: f [B], the network's outputs; higher dies sooner.
        times: [B], in any unit; to the last death or censoring.
        events: [B], 1 or True where `times` ends with death, 0 where it is censored.
        mask: [B], False for entries that only fill up the batch, whatever they hold; None for none.

    Returns:
        A scalar; 0, without gradient, for a batch without deaths.

    References:
        Cox, Partial likelihood, Biometrika 1975; Efron, The efficiency of Cox's likelihood function
        for censored data, JASA 1977; Tellez et al., Extending unsupervised neural image compression
        with supervised multitask learning, MIDL 2020.
    """
    mask = jnp.ones(risks.shape, bool) if mask is None else mask.astype(bool)
    died = (events > 0) & mask
    risks = jnp.where(mask, risks, 0)
    # From here on i in rows, who dies, and j in columns, who is at risk: [B, B].
    at_risk = mask & (times >= times[:, None])
    together = died & died[:, None] & (times == times[:, None])
    rank = jnp.tril(together, -1).sum(axis=1)
    share = 1 - rank / jnp.maximum(together.sum(axis=1), 1)  # ≥ 1/d
    weight = jnp.where(together, share[:, None], at_risk)
    # Rows without a death are not looked at, but must have a finite logarithm and gradient.
    weight = jnp.where(died[:, None], weight, 1).astype(risks.dtype)
    log_hazards = logsumexp(risks[None, :], axis=1, b=weight)  # [B]
    surprise = jnp.where(died, log_hazards - risks, 0)
    return surprise.sum() / jnp.maximum(died.sum(), 1)
