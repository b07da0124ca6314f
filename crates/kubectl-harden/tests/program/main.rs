//! The program from outside.

#[cfg(test)]
mod audit;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod convert;
#[cfg(test)]
mod explain;
#[cfg(test)]
mod junit;
#[cfg(test)]
mod streams;
