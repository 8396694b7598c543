"""Images: where they come from (`sources`, `glyphs`, `sprites`) and how batches of them reach the model (`datamodule`).

The contract of a **source**, the `source` node of a data configuration; `sources.Source` is its type:

`load(root, train)`
    returns the training or the test images, in one of two forms:

    - a `Split`: uint8 images `(N, C, H, W)`, and int64 labels `(N,)` from 0, or None without labels. It is kept in
      memory, or on the training device if it fits. It may also have the values `(N, K)` of known factors of variation.
    - any map-style `torch.utils.data.Dataset`. Either every item is a uint8 image `(C, H, W)`, or every item is a pair
      of an image and its label, a whole number from 0. Items are fetched batch by batch, by `data.num_workers`
      processes, so memory does not grow with their number; the data set's `__getitems__(indices)` is used if it has
      one. The same index must always return the same item, because resuming and measuring rely on it: augmentation
      belongs in the encoder or the data module.

`prepare(root)`
    makes the data available on this machine, for example by downloading them, in or below the folder of all data sets.
    Several processes may call it at once.
`class_names`
    the names of the classes, in the order of their labels; `()` without labels.
`factor_names` (optional)
    the names of the factors; by default their numbers.
`categorical_factors` (optional)
    the names of those whose values have no order; all others are taken for numbers.
`image_shape` (optional)
    `(C, H, W)`, if known before anything is read; a different `data.image_shape` is then an error before the model is
    built.
"""
