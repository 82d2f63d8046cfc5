//! The guest's parameters on the kernel command line.
//!
//! They are dotted (`tty.burn=50`), which the kernel takes for a module's
//! parameter and passes over in silence (kernel document
//! admin-guide/kernel-parameters).
