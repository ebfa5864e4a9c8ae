"""Neural image compression for gigapixel histopathology, in JAX."""

__version__ = '0.1.0'
