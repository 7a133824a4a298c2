//! The real `agent-host` over real pipes.

mod client;
mod commands;
mod hello;
mod messages;
mod output;
mod scripts;
mod stops;
mod verifies;
