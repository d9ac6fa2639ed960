//! The agent's routes in a real kernel: each test has a network namespace of its own, runs the fib task in it, and
//! asks `ip`, never the task itself, what the kernel holds.
mod delivery;
mod install;
mod node;
mod ownership;
mod repair;
mod storm;
