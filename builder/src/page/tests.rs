//! Pages of runs that are empty, torn, hostile or huge.
