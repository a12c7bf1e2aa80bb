//! For tests only: fake clock, fault injection, in-memory bank, service harness.

mod bank;
mod clock;
mod faulty;
mod keystone_fake;
mod keystone_server;
mod mariadb;
mod postgres;
mod python;
mod services;

pub use bank::MemoryBank;
pub use clock::FakeClock;
pub use faulty::{Call, Fault, FaultyBank};
pub use karbor_plugin::layers::Verb;
pub use keystone_fake::FakeKeystone;
pub use keystone_server::{KeystoneServer, ask};
pub use mariadb::MariadbServer;
pub use postgres::PostgresServer;
pub use python::python;
pub use services::{MemoryServices, ServiceHarness, StoreMode};
