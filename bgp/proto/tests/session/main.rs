//! Behaviour of two sessions against each other, on a virtual clock.
mod capabilities;
mod chaos;
mod collision;
mod life;
mod pair;
mod restart;
mod retention;
mod told;
