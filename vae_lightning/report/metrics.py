"""The name of each metric, its number of digits, which way is better, and what it means."""

from typing import NamedTuple

__all__ = ["AGAINST", "CONSOLE", "EVALUATED", "METRICS", "Metric", "describe"]

EVALUATED = "evaluations/"  # what the names of metrics of evaluations begin with
AGAINST = "_against_"  # what stands before the name of the other data


class Metric(NamedTuple):
    """The way a metric is shown.

    Attributes:
        label: short name.
        digits: after the decimal point.
        better: 1 if higher is better, -1 if lower is, 0 if neither.
        unit: empty for a plain number.
        meaning: in one sentence.
    """

    label: str
    digits: int
    better: int
    unit: str
    meaning: str

    def write(self, value: float) -> str:
        """Returns a value as text; one that would be rounded to zero, with two digits of its own."""
        text = f"{value:,.{self.digits}f}"
        return text if value == 0 or float(text.replace(",", "")) else f"{value:.1e}"


_NEIGHBOURS = "share of test images whose class the ten nearest training images tell"
_LINEAR = "Test accuracy of a logistic regression, its penalty cross-validated,"
_HALFWAY = (
    "distance of the picture half way between two codes from the nearest real image, in the classifier's features"
)
_CODES, _LATTICE = "of test images", "on the chapter's lattice, four cells apart"
_PLANE = "the plane of the two leading components of test codes, or the plane itself at d = 2"
_PICTURE = f"0 to 1: whether neighbours in {_PLANE}, are neighbours"

METRICS = {
    "test/elbo": Metric(
        "elbo", 2, 1, "nats", "Evidence lower bound of the test images: −distortion − rate, one sample each."
    ),
    "test/iw_bound": Metric(
        "iw bound",
        2,
        1,
        "nats",
        "Importance-weighted bound: a tighter bound of log p(x) than the elbo, with many samples (bound_samples).",
    ),
    "test/elbo_stderr": Metric("± elbo", 2, 0, "nats", "Standard error of the elbo over images."),
    "test/distortion": Metric("distortion", 2, -1, "nats", "−E log p(x|z): what reconstruction costs."),
    "test/rate": Metric("rate", 2, 0, "nats", "KL(q(z|x) ‖ p(z)): what the code costs."),
    "test/loss": Metric(
        "loss", 2, 0, "nats", "What was minimised, on test images; comparable between equal objectives only."
    ),
    "test/distortion_above_floor": Metric(
        "above floor", 2, -1, "nats", "Distortion above the entropy of pixels between 0 and 1, the least it can be."
    ),
    "test/bits_per_dim": Metric("bits/dim", 3, -1, "bits", "−elbo for each pixel and channel, in bits."),
    "test/mse": Metric("mse", 4, -1, "", "Mean squared error of the pixels, reconstructed from the posterior mean."),
    "test/iw_bound_stderr": Metric(
        "± iw bound", 2, 0, "nats", "Standard error of the importance-weighted bound over images."
    ),
    "test/annealed_bound": Metric(
        "annealed bound",
        2,
        1,
        "nats",
        "Bound of log p(x) from annealed importance sampling, which does not depend on the encoder, for some test "
        "images (annealed_images).",
    ),
    "test/annealed_bound_stderr": Metric("± annealed", 2, 0, "nats", "Standard error of it over images."),
    "test/annealed_rise": Metric(
        "annealed rise",
        2,
        0,
        "nats",
        "By how much the annealed bound is above the importance-weighted one for the same images.",
    ),
    "test/annealed_rise_stderr": Metric("± annealed rise", 2, 0, "nats", "Standard error of that over images."),
    "test/annealed_gap": Metric(
        "annealed gap",
        2,
        -1,
        "nats",
        "Distance of the same bound from one from above, for as many images drawn from the model: at most so far is it "
        "from log p(x) there, on average.",
    ),
    "test/annealed_gap_stderr": Metric("± annealed gap", 2, 0, "nats", "Standard error of that over images."),
    "test/iw_bound_rise": Metric(
        "rise of iw bound",
        2,
        -1,
        "nats",
        "By how much it rose when its samples were last doubled: about what is missing.",
    ),
    "test/iw_bound_rise_stderr": Metric("± rise", 2, 0, "nats", "Standard error of that rise over images."),
    "test/effective_sample_share": Metric(
        "effective", 3, 1, "", "Effective sample size of the importance-weighted bound, as a share of its samples."
    ),
    "test/active_units": Metric(
        "active",
        0,
        0,
        "units",
        "Latent dimensions whose posterior mean varies by more than 0.01 of the prior's variance.",
    ),
    "test/elbo_training": Metric(
        "train elbo", 2, 0, "nats", "The elbo of as many training images, in evaluation mode, one sample each."
    ),
    "test/generalisation_gap": Metric(
        "train gap", 2, 0, "nats", "By how much the elbo of training images is above that of test images: overfitting."
    ),
    "test/generalisation_gap_stderr": Metric("± train gap", 2, 0, "nats", "Standard error of that gap over images."),
    "test/mutual_information_lower": Metric(
        "I(x; z) ≥", 2, 0, "nats", "What codes tell of their images, at least; never above the log of their number."
    ),
    "test/mutual_information_upper": Metric("I(x; z) ≤", 2, 0, "nats", "What codes tell of their images, at most."),
    "test/marginal_kl_lower": Metric(
        "KL(q(z) ‖ p(z)) ≥", 2, 0, "nats", "What the rate is above what codes tell: their mismatch with the prior."
    ),
    "test/marginal_kl_upper": Metric("KL(q(z) ‖ p(z)) ≤", 2, 0, "nats", "The same, at most."),
    "test/total_correlation_lower": Metric(
        "TC ≥", 2, 0, "nats", "The part of that mismatch that is dependence of the dimensions of codes, at least."
    ),
    "test/total_correlation_upper": Metric("TC ≤", 2, 0, "nats", "The same, at most."),
    "test/dimensionwise_kl": Metric(
        "Σ KL(q(z_j) ‖ p(z_j))", 2, 0, "nats", "The other part: the mismatch of each dimension alone, added up."
    ),
    "test/code_perplexity": Metric(
        "perplexity", 1, 1, "codes", "exp of the entropy of the use of codes: as many would be evenly used."
    ),
    "test/codes_used": Metric("codes used", 0, 0, "codes", "Codes of the codebook that occur among the test images."),
    "test/posterior_mean_gap": Metric(
        "mean gap", 3, -1, "", "Root mean square difference of the means of aggregate posterior and prior."
    ),
    "test/posterior_covariance_gap": Metric(
        "cov. gap", 3, -1, "", "Frobenius norm of the difference of their covariances, for each √d."
    ),
    "test/knn_accuracy": Metric("knn", 3, 1, "", f"From codes: {_NEIGHBOURS}."),
    "test/knn_accuracy_plane": Metric(
        "knn in plane", 3, 1, "", f"From the plane of the two leading components of training codes: {_NEIGHBOURS}."
    ),
    "test/knn_accuracy_pixels": Metric(
        "knn, pixels", 3, 0, "", f"From the same images' pixels, the same for all models: {_NEIGHBOURS}."
    ),
    "test/probe_accuracy": Metric("linear probe", 3, 1, "", f"{_LINEAR} on the codes."),
    "test/probe_accuracy_pixels": Metric(
        "probe, pixels", 3, 0, "", f"{_LINEAR} on the same images' pixels, the same for all models."
    ),
    "test/normalised_mutual_information": Metric(
        "NMI", 3, 1, "", "How far the classes are the clusters of codes that k-means finds without labels, 0 to 1."
    ),
    "test/normalised_mutual_information_pixels": Metric(
        "NMI, pixels", 3, 0, "", "The same of clusters of the same images' pixels, the same for all models."
    ),
    "test/silhouette": Metric(
        "silhouette", 3, 1, "", "−1 to 1: how tight the classes are among codes, and how far apart; 0 if they overlap."
    ),
    "test/silhouette_pixels": Metric(
        "silhouette, pixels", 3, 0, "", "The same among the same images' pixels, the same for all models."
    ),
    "test/chance_accuracy": Metric("chance", 3, 0, "", "Share of the most frequent class among the test images."),
    "test/classifier_accuracy": Metric(
        "classifier", 3, 0, "", "Test accuracy of the classifier whose features Fréchet and kernel distances compare."
    ),
    "test/classification": Metric(
        "−log q(y|x)", 3, -1, "nats", "What the label costs under the model's own classifier."
    ),
    "test/label_accuracy": Metric(
        "label told", 3, 1, "", "Test accuracy of the model's own classifier q(y|x), which few labels may have taught."
    ),
    "test/frechet_samples": Metric(
        "Fréchet",
        1,
        -1,
        "",
        "Fréchet distance of samples from real test images, in the classifier's features: of their means from grey "
        "images, of drawn pixels from binary ones.",
    ),
    "test/frechet_reconstructions": Metric("Fréchet, rec.", 1, -1, "", "The same of reconstructions."),
    "test/frechet_floor": Metric(
        "Fréchet, real", 1, 0, "", "The same of training images new to the classifier, as test images are: the least."
    ),
    "test/kernel_samples": Metric(
        "kernel", 2, -1, "", "Kernel distance of samples from real test images, same features."
    ),
    "test/kernel_reconstructions": Metric("kernel, rec.", 2, -1, "", "The same of reconstructions."),
    "test/kernel_floor": Metric("kernel, real", 2, 0, "", "The same of training images new to the classifier."),
    "test/precision": Metric(
        "precision",
        3,
        1,
        "",
        "Share of samples no farther from some real test image than its fifth neighbour, in the classifier's features.",
    ),
    "test/recall": Metric(
        "recall", 3, 1, "", "Share of real test images no farther from some sample than its fifth neighbour."
    ),
    "test/density": Metric(
        "density",
        3,
        1,
        "",
        "As precision, but of how many real images, over five: outliers count little; about 1 for real images.",
    ),
    "test/coverage": Metric(
        "coverage",
        3,
        1,
        "",
        "Share of real test images with a sample no farther than their fifth neighbour; about 0.97 for real images.",
    ),
    **{
        f"test/{name}_real": Metric(
            f"{name}, real", 3, 0, "", f"The {name} of training images new to the classifier, in place of samples."
        )
        for name in ("precision", "recall", "density", "coverage")
    },
    **{
        f"test/{name}_stderr": Metric(
            f"± {label}", digits, 0, "", f"Standard error of {label} over images, from random halves of them."
        )
        for name, label, digits in [
            ("frechet_samples", "Fréchet", 1),
            ("frechet_reconstructions", "Fréchet, rec.", 1),
            ("frechet_floor", "Fréchet, real", 1),
            *((name, name, 3) for name in ("precision", "recall", "density", "coverage")),
        ]
    },
    "test/copy_distance": Metric(
        "copies",
        2,
        0,
        "",
        "Median distance of samples from the nearest training image, in pixels and in units of test images': far below "
        "that of reconstructions, samples are copies.",
    ),
    "test/copy_distance_reconstructions": Metric(
        "copies, rec.",
        2,
        0,
        "",
        "The same of reconstructions of test images, which are as smooth as samples but no copies.",
    ),
    "test/auroc_bound": Metric(
        "AUROC, bound",
        3,
        1,
        "",
        "How often an image has a higher bound than one of other data; below 0.5, other data look likelier.",
    ),
    "test/auroc_typicality": Metric(
        "AUROC, typicality",
        3,
        1,
        "",
        "How often its bound is nearer to the mean bound of training images than that of one of other data.",
    ),
    "test/auroc_complexity": Metric(
        "AUROC, complexity",
        3,
        1,
        "",
        "How often its bound is better, held against the bits of a PNG file, than that of one of other data.",
    ),
    "test/mutual_information_gap": Metric(
        "MIG",
        3,
        1,
        "",
        "Mutual information gap: how much more one dimension knows of each factor than any other does.",
    ),
    "test/separated_attribute_predictability": Metric(
        "SAP", 3, 1, "", "By how much one dimension alone predicts each factor better than any other alone."
    ),
    "test/disentanglement": Metric(
        "disentanglement", 3, 1, "", "1 if every dimension matters to one factor alone (the D of DCI)."
    ),
    "test/completeness": Metric(
        "completeness", 3, 1, "", "1 if for every factor one dimension alone matters (the C of DCI)."
    ),
    "test/informativeness": Metric(
        "informativeness", 3, 1, "", "What the code tells of the factors, 0 to 1, entangled or not (the I of DCI)."
    ),
    "test/modularity": Metric(
        "modularity", 3, 1, "", "1 if every dimension knows of one factor alone; a factor may have several dimensions."
    ),
    "test/factor_vae_score": Metric(
        "FactorVAE score", 3, 1, "", "How often the steadiest dimension tells which factor a group of images shares."
    ),
    "test/beta_vae_score": Metric(
        "β-VAE score", 3, 1, "", "How often a linear classifier tells which factor pairs of images share."
    ),
    "test/path_unevenness": Metric(
        "unevenness", 3, -1, "", "Longest of 15 decoded steps between two codes, as a share of the path; 0.067 is even."
    ),
    "test/path_unevenness_lattice": Metric("unevenness, lattice", 3, -1, "", f"The same {_LATTICE}."),
    "test/halfway_distance": Metric(
        "half way", 2, -1, "", f"Mean {_HALFWAY}; 1 is the distance of a real image. Codes {_CODES}."
    ),
    "test/halfway_distance_crossfade": Metric(
        "half way, cross-fade",
        2,
        0,
        "",
        "The same of the mean of the pictures at both ends: what pixels alone achieve.",
    ),
    "test/halfway_distance_untrained": Metric(
        "half way, untrained", 2, 0, "", "The same of the picture half way from a decoder that has not been trained."
    ),
    "test/halfway_distance_lattice": Metric("half way, lattice", 2, -1, "", f"As half way, between codes {_LATTICE}."),
    "test/halfway_distance_crossfade_lattice": Metric(
        "cross-fade, lattice", 2, 0, "", "The same of the mean of the pictures at both ends."
    ),
    "test/halfway_distance_untrained_lattice": Metric(
        "untrained, lattice", 2, 0, "", "The same from a decoder that has not been trained."
    ),
    "test/trustworthiness": Metric("trustworthy", 3, 1, "", f"{_PICTURE} among the codes."),
    "test/continuity": Metric(
        "continuity", 3, 1, "", f"0 to 1: whether neighbours among the codes are neighbours in {_PLANE}."
    ),
    "test/trustworthiness_images": Metric("trustw., images", 3, 1, "", f"{_PICTURE} among the images."),
    "test/continuity_images": Metric(
        "cont., images", 3, 1, "", f"0 to 1: whether neighbours among the images are neighbours in {_PLANE}."
    ),
    "test/trustworthiness_tsne": Metric("trustw., t-SNE", 3, 1, "", "Trustworthiness of a t-SNE picture of the codes."),
    "test/continuity_tsne": Metric("cont., t-SNE", 3, 1, "", "Continuity of a t-SNE picture of the codes."),
    "test/trustworthiness_images_tsne": Metric(
        "trustw. t-SNE, images", 3, 1, "", "The same against neighbours among the images."
    ),
    "test/continuity_images_tsne": Metric(
        "cont. t-SNE, images", 3, 1, "", "The same against neighbours among the images."
    ),
    "val/elbo": Metric("val elbo", 2, 1, "nats", "The elbo of the validation images."),
    "val/distortion": Metric("val distortion", 2, -1, "nats", "The distortion of the validation images."),
    "val/rate": Metric("val rate", 2, 0, "nats", "The rate of the validation images."),
    "val/loss": Metric("val loss", 2, 0, "nats", "What was minimised, on validation images."),
    "seconds_training": Metric("seconds", 1, -1, "s", "Wall time of the training, drawing and logging included."),
    "images_per_second": Metric("images/s", 0, 1, "1/s", "Training images for each second of it."),
    "parameters": Metric("parameters", 0, 0, "", "Number of learned parameters."),
    "epochs": Metric("epochs", 0, 0, "", "Epochs trained."),
    "steps": Metric("steps", 0, 0, "", "Optimizer steps taken."),
    "best_step": Metric(
        "best step",
        0,
        0,
        "",
        "Step of the best checkpoint, if one was chosen: val and test metrics are of its weights.",
    ),
}

# The console's columns, in this order; the CSV file and the page have everything.
CONSOLE = (
    "test/elbo", "test/generalisation_gap", "test/iw_bound", "test/distortion", "test/rate", "val/elbo",
    "test/active_units", "test/knn_accuracy", "test/mutual_information_gap", "test/frechet_samples",
    "seconds_training", "parameters", "epochs",
)  # fmt: skip


def describe(name: str) -> Metric:
    """Returns how a metric is shown; of one that is not known here, such as an objective's own term, after its name.

    Metrics of an evaluation are named `evaluations/<evaluation>/<metric>`, those against other data `…_against_<data>`.

    >>> describe("evaluations/mnist/test/elbo").label
    'mnist: elbo'
    >>> describe("test/auroc_bound_against_mnist").label
    'AUROC, bound against mnist'
    >>> describe("test/discriminator_loss").label, describe("val/discriminator_loss").label
    ('discriminator loss', 'val discriminator loss')
    """
    if name in METRICS:
        return METRICS[name]
    if name.startswith(EVALUATED):
        evaluation, _, metric = name.removeprefix(EVALUATED).partition("/")
        known = describe(metric)
        meaning = f"{known.meaning} Of the evaluation {evaluation}."
        return known._replace(label=f"{evaluation}: {known.label}", meaning=meaning)
    known_as, against, other = name.partition(AGAINST)
    if against and known_as in METRICS:
        known = METRICS[known_as]
        return known._replace(
            label=f"{known.label} against {other}", meaning=f"{known.meaning} Against test images of {other}."
        )
    label = name.removeprefix("test/").replace("/", " ").replace("_", " ")
    return Metric(label, 3, 0, "", f"{name}, as logged by the run.")
