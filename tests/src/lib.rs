//! Integration tests of imgbuild.
