//! imgbuild.
