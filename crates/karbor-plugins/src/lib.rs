//! The plugins: banks, protectables and protections, and the registry that names them.
