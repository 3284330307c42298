"""Numbers by other packages for the tests of distances, and how to get them.

  pip install torch torch-fidelity==0.4.0 prdc==0.2 scikit-learn==1.9.1
  python -m tests.evaluation.metrics.distances_reference

prints RECORDED anew. torch-fidelity is given float64; KID is averaged over 100
subsets of 200.
"""

import numpy as np

RECORDED = {
  "kid": [0.47232695246644374, 0.04901100036342206],
  "is": [1.2278560475499396, 0.02101282060781785],
  "precision_recall": [0.6066666841506958, 0.6520000100135803],
  "density_coverage": [0.625, 0.844],
  "poly2": 0.06412744824038889,
  "cmmd": 0.6293403183679214,
}


def features(seed: int, count: int, width: int = 16) -> np.ndarray:
  """Seeded features, float32: a falling spectrum, with the seed in the mean."""
  rng = np.random.RandomState(seed)
  noise = rng.randn(count, width) * np.exp(-np.arange(width) / width)
  return (noise + 0.3 * seed).astype(np.float32)


def main() -> None:
  import prdc
  from sklearn.metrics import pairwise
  import torch
  from torch_fidelity import metric_isc
  from torch_fidelity import metric_kid
  from torch_fidelity import metric_prc

  x, y = np.float64(features(1, 500)), np.float64(features(2, 600))
  tx, ty = torch.from_numpy(x), torch.from_numpy(y)
  kid = metric_kid.kid_features_to_metric(
    tx, ty, kid_subsets=100, kid_subset_size=200, rng_seed=2020, verbose=False
  )
  score = metric_isc.isc_features_to_metric(tx)
  shares = metric_prc.prc_features_to_metric(ty, tx, verbose=False)
  others = prdc.compute_prdc(x, y, 5)

  def mmd(kernel, x, y):
    return kernel(x, x).mean() + kernel(y, y).mean() - 2 * kernel(x, y).mean()

  unit = lambda z: z / np.linalg.norm(z, axis=1, keepdims=True)
  square = lambda x, y: pairwise.polynomial_kernel(x, y, 2, None, 0)
  gaussian = lambda x, y: pairwise.rbf_kernel(x, y, 1 / 200)
  print(
    {
      "kid": list(kid.values()),
      "is": list(score.values()),
      "precision_recall": [shares["precision"], shares["recall"]],
      "density_coverage": [others["density"], others["coverage"]],
      "poly2": mmd(square, x, y),
      "cmmd": 1000 * mmd(gaussian, unit(x), unit(y)),
    }
  )


if __name__ == "__main__":
  main()
