//! Links and pages.
