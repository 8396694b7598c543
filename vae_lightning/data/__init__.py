"""Images: where they come from (`sources`, `glyphs`) and how batches of them reach the model (`datamodule`).

The contract of a **source**, the `source` node of a data configuration; `sources.Source` is its type:

`load(root, train)`
    returns the training or the test images, in one of two forms:

    - a `Split`: uint8 images `(N, C, H, W)`, and int64 labels `(N,)` from 0, or None without labels. It is kept in
      memory, or on the training device where it fits.
    - any map-style `torch.utils.data.Dataset`. An item is a uint8 image `(C, H, W)` or a pair of an image and its
      label, a whole number from 0, for all items alike. Items are fetched batch by batch, by the processes that
      `data.num_workers` counts, so memory does not grow with their number; a `__getitems__(indices)` of the data set
      is used where there is one. The same index must always give the same item: resuming and measuring rely on it, so
      an augmentation belongs into the encoder or the data module.

`prepare(root)`
    makes the data available on this machine, for example by a download, in or below the folder of all data sets. It
    may be called by several processes at once.
`class_names`
    the names of the classes, in the order of their labels; `()` without labels.
`image_shape` (optional)
    `(C, H, W)`, where it is known before anything is read: a `data.image_shape` that differs is then refused before
    the model is built.
"""
