//! Runs the fixture guests of `tests/guests` (`make guests` builds them) and components written as text.

mod cache;
mod calls;
mod fixtures;
mod loading;
mod output;
mod pages;
