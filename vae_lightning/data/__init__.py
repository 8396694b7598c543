"""Images: where they come from (`sources`, `glyphs`) and how batches of them reach the model (`datamodule`).

The contract of a **source**, the `source` node of a data configuration:

`class_names`
    names of the classes, in the order of their labels.
`prepare(root)`
    makes the data available on this machine, by a download, say, in or below the folder of all data sets. May be
    called by several processes at once.
`load(root, train)`
    the training or the test images as a `Split`: uint8 images `(N, C, H, W)` and int64 labels `(N,)`.
"""
