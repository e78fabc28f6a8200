"""Every kernel against its schema and against oracles nobody here wrote: a ladder of properties.

    test_signature.py   the kernel's signature is the schema, at every version it serves
    test_values.py      tame values, every type, inputs as inputs or as constants (host lane)
    test_special.py     nan, inf, -0.0, empty tensors
    test_gradients.py   gradcheck in float64
    test_meta.py        nothing is read out of a tensor, nothing is made on another device

A kernel joins by being registered and having a sample beside it; nothing is listed here.
"""
