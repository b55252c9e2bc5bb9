"""The connection to PaddleSeg: registration, repairs, and patches of other libraries."""
