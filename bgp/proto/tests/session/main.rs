//! Behaviour of two sessions against each other, on a virtual clock.
mod collision;
mod life;
mod pair;
mod restart;
