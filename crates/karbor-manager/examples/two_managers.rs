//! Two managers in one process: one call direct, one by RPC, one periodic task.
//!
//! `cargo run -p karbor-manager --example two_managers`
#![allow(clippy::print_stdout)]

use karbor_manager::*;
use karbor_model::{ApiError, RequestContext};
use karbor_testkit::{FakeClock, MemoryServices};
use std::sync::{Arc, atomic::AtomicU64, atomic::Ordering::Relaxed};

rpc_interface! {
    /// What others may ask of the librarian.
    pub trait LibraryApi {
        topic: "library", version: (1, 0), client: LibraryClient, endpoint: LibraryEndpoint
    }
    /// Lends a book; says how many are out.
    since (1, 0) call fn lend(title: String) -> u64;
}

const LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

struct Librarian(ManagerBase<AtomicU64>); // its "db driver": how many books are out

#[async_trait::async_trait]
impl LibraryApi for Librarian {
    async fn lend(&self, _: &RequestContext, title: String) -> Result<u64, ApiError> {
        println!("librarian on {}: lends {title}", self.0.host());
        Ok(self.0.db().fetch_add(1, Relaxed) + 1)
    }
}

impl Manager for Librarian {
    type Db = AtomicU64;
    const BINARY: &'static str = "library";
    const TOPIC: &'static str = "library";
    fn base(&self) -> &ManagerBase<AtomicU64> {
        &self.0
    }
    fn endpoints(self: &Arc<Self>) -> Vec<Arc<dyn RpcEndpoint>> {
        vec![Arc::new(LibraryEndpoint::new(self.clone()))]
    }
    fn periodic_tasks(self: &Arc<Self>) -> PeriodicTasks<Self> {
        let count = PeriodicTask::new("count", |librarian: Arc<Self>, _| async move {
            Ok(librarian.0.db().load(Relaxed))
        });
        PeriodicTasks::new(self.0.clock().clone()).with(count.run_immediately(true))
    }
}

/// It holds the trait, and does not know whether the librarian is near or far.
struct Reader(ManagerBase<()>, Arc<dyn LibraryApi>);

impl Reader {
    async fn read(&self, title: &str) -> Result<u64, ApiError> {
        let context = RequestContext::admin();
        self.1.lend(&context, title.to_owned()).await
    }
}

impl Manager for Reader {
    type Db = ();
    const BINARY: &'static str = "reader";
    const TOPIC: &'static str = "reader";
    fn base(&self) -> &ManagerBase<()> {
        &self.0
    }
}

#[tokio::main]
async fn main() -> Result<(), ApiError> {
    let (clock, rpc) = (Arc::new(SystemClock::new()), Arc::new(InProcess::new()));
    let store = Arc::new(MemoryServices::new(FakeClock::new()));
    let config = Config::builder().options(OPTIONS).build()?;
    let options = ServiceOptions::from_config(&config)?;

    let base = ManagerBase::new(None, AtomicU64::new(0), config.clone(), clock.clone());
    let librarian = Arc::new(Librarian(base));
    println!("{} answers {}", Librarian::BINARY, librarian.target());
    let library = Service::new(librarian.clone(), options, store, rpc.clone())
        .start()
        .await?;
    let base = ManagerBase::new(None, (), config.clone(), clock.clone());
    println!(
        "direct: {} out",
        Reader(base, librarian.clone()).read("Moby-Dick").await?
    );
    let client = LibraryClient::new(rpc, LIMIT);
    let base = ManagerBase::new(None, (), config, clock);
    println!(
        "by RPC: {} out",
        Reader(base, Arc::new(client)).read("Dune").await?
    );

    let (tasks, context) = (library.periodic_tasks(), RequestContext::admin());
    let idle = tasks.periodic_tasks(&librarian, &context, true).await?;
    println!("idle for {idle:?} after {:?}", tasks.reports());
    println!("{:?}", library.shutdown(LIMIT).await);
    Ok(())
}
