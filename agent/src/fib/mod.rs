//! Kernel routes: desired versus dumped, level-triggered.
