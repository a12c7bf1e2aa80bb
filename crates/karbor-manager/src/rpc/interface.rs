//! One declaration, three things: the trait that a manager implements, the client that calls it
//! elsewhere, the endpoint that answers.

/// Declares what a service answers over RPC.
///
/// ```
/// use karbor_manager::rpc_interface;
///
/// rpc_interface! {
///     /// What others may ask of the bell ringer.
///     pub trait RingerApi {
///         topic: "ringer", version: (1, 1), client: RingerClient, endpoint: RingerEndpoint
///     }
///     /// Rings so many times; says how often it rang in all. `times` may be left out.
///     since (1, 0) call fn ring(bell: String, times: u32 = 1) -> u64;
///     /// Do not wait for it.
///     since (1, 1) cast fn grease(bell: String);
///     /// Every ringer.
///     since (1, 1) fanout fn go_home();
/// }
/// ```
///
/// * the trait: `async fn ring(&self, context: &RequestContext, bell: String, times: u32) ->
///   Result<u64, ApiError>` and so on; objects of it can be held as `Arc<dyn RingerApi>`;
/// * `RingerClient::new(transport, timeout)` implements it by RPC: each message asks for the version
///   given after `since`. `on_server(host)` makes it speak to one host, `on_topic` to another topic;
/// * `RingerEndpoint::new(Arc<dyn RingerApi>)` answers.
///
/// `namespace: "…",` may stand before `version`. Arguments travel by name; one with a `= default`
/// takes it when a message leaves it out or has null. One that the method does not have is refused:
/// an argument that is added needs a new version of the interface.
///
/// A method that came with a version which the interface has not reached does not compile:
///
/// ```compile_fail,E0080
/// use karbor_manager::rpc_interface;
///
/// rpc_interface! {
///     /// What others may ask of the bell ringer.
///     pub trait RingerApi {
///         topic: "ringer", version: (1, 0), client: RingerClient, endpoint: RingerEndpoint
///     }
///     /// Nobody could call it: no endpoint would take its messages.
///     since (1, 3) call fn ring();
/// }
/// ```
#[macro_export]
macro_rules! rpc_interface {
    (
        $(#[$doc:meta])*
        $vis:vis trait $Api:ident {
            $(topic: $topic:expr,)?
            $(namespace: $namespace:expr,)?
            version: ($major:literal, $minor:literal),
            client: $Client:ident,
            endpoint: $Endpoint:ident $(,)?
        }
        $(
            $(#[$mdoc:meta])*
            since ($smajor:literal, $sminor:literal) $kind:ident fn $method:ident(
                $($arg:ident : $ty:ty $(= $default:expr)?),* $(,)?
            ) $(-> $ret:ty)?;
        )+
    ) => {
        $(#[$doc])*
        #[$crate::__private::async_trait]
        $vis trait $Api: Send + Sync + 'static {
            $(
                $(#[$mdoc])*
                #[allow(clippy::too_many_arguments)]
                async fn $method(
                    &self,
                    context: &$crate::__private::RequestContext,
                    $($arg: $ty),*
                ) -> Result<$crate::__rpc_returned!($($ret)?), $crate::__private::ApiError>;
            )+
        }

        $(const _: () = assert!(
            $crate::rpc::RpcVersion::new($major, $minor)
                .accepts($crate::rpc::RpcVersion::new($smajor, $sminor)),
            concat!(
                stringify!($method),
                " asks for a version that the interface has not reached"
            ),
        );)+

        #[doc = concat!("[`", stringify!($Api), "`] by RPC.")]
        #[derive(Clone)]
        $vis struct $Client {
            transport: std::sync::Arc<dyn $crate::rpc::RpcTransport>,
            target: $crate::rpc::Target,
            timeout: std::time::Duration,
        }

        impl $Client {
            /// Sends through `transport` and waits for answers no longer than `timeout`.
            #[must_use]
            pub fn new(
                transport: std::sync::Arc<dyn $crate::rpc::RpcTransport>,
                timeout: std::time::Duration,
            ) -> Self {
                let target = $crate::rpc::Target::new()
                    $(.with_topic($topic))?
                    $(.with_namespace($namespace))?;
                Self { transport, target, timeout }
            }

            /// The same, to one server.
            #[must_use]
            pub fn on_server(mut self, server: impl Into<String>) -> Self {
                self.target = self.target.with_server(server);
                self
            }

            /// The same, to another topic.
            #[must_use]
            pub fn on_topic(mut self, topic: impl Into<String>) -> Self {
                self.target = self.target.with_topic(topic);
                self
            }
        }

        #[$crate::__private::async_trait]
        impl $Api for $Client {
            $(
                async fn $method(
                    &self,
                    context: &$crate::__private::RequestContext,
                    $($arg: $ty),*
                ) -> Result<$crate::__rpc_returned!($($ret)?), $crate::__private::ApiError> {
                    #[allow(unused_mut)]
                    let mut args = $crate::__private::Map::new();
                    $(args.insert(
                        stringify!($arg).to_owned(),
                        $crate::__private::encode(&$arg)?,
                    );)*
                    let target = self.target.clone().with_version(
                        $crate::rpc::RpcVersion::new($smajor, $sminor),
                    );
                    $crate::__rpc_send!($kind, self, &target, context, stringify!($method), args)
                }
            )+
        }

        #[doc = concat!("Answers for a [`", stringify!($Api), "`].")]
        #[derive(Clone)]
        $vis struct $Endpoint {
            api: std::sync::Arc<dyn $Api>,
        }

        impl $Endpoint {
            /// The interface's version.
            pub const VERSION: $crate::rpc::RpcVersion =
                $crate::rpc::RpcVersion::new($major, $minor);

            /// The interface's methods.
            pub const METHODS: &'static [$crate::rpc::RpcMethod] = &[
                $($crate::rpc::RpcMethod {
                    name: stringify!($method),
                    since: $crate::rpc::RpcVersion::new($smajor, $sminor),
                    kind: $crate::__rpc_kind!($kind),
                    arguments: &[$(stringify!($arg)),*],
                }),+
            ];

            /// Answers by calling `api`.
            #[must_use]
            pub fn new(api: std::sync::Arc<dyn $Api>) -> Self {
                Self { api }
            }
        }

        #[$crate::__private::async_trait]
        impl $crate::rpc::RpcEndpoint for $Endpoint {
            fn target(&self) -> $crate::rpc::Target {
                $crate::rpc::Target::new()
                    $(.with_namespace($namespace))?
                    .with_version(Self::VERSION)
            }

            fn methods(&self) -> &'static [$crate::rpc::RpcMethod] {
                Self::METHODS
            }

            async fn dispatch(
                &self,
                context: &$crate::__private::RequestContext,
                method: &str,
                args: $crate::__private::Map<String, $crate::__private::Value>,
            ) -> Result<$crate::__private::Value, $crate::__private::ApiError> {
                #[allow(unused_mut, unused_variables)]
                let mut args = args;
                match method {
                    $(stringify!($method) => {
                        $(let $arg: $ty =
                            $crate::__rpc_argument!(&mut args, stringify!($arg) $(, $default)?)?;)*
                        $crate::__private::no_more_arguments(&args, method)?;
                        let returned = self.api.$method(context, $($arg),*).await?;
                        $crate::__private::encode(&returned)
                    })+
                    other => Err($crate::rpc::RpcError::NoSuchMethod {
                        method: other.to_owned(),
                    }
                    .into()),
                }
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __rpc_returned {
    () => {
        ()
    };
    ($ret:ty) => {
        $ret
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __rpc_kind {
    (call) => {
        $crate::rpc::RpcKind::Call
    };
    (cast) => {
        $crate::rpc::RpcKind::Cast
    };
    (fanout) => {
        $crate::rpc::RpcKind::Fanout
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __rpc_send {
    (call, $client:expr, $target:expr, $context:expr, $method:expr, $args:expr) => {{
        let sent = $client
            .transport
            .call($target, $context, $method, $args, $client.timeout);
        $crate::__private::result($method, sent.await?)
    }};
    (cast, $client:expr, $target:expr, $context:expr, $method:expr, $args:expr) => {
        $client
            .transport
            .cast($target, $context, $method, $args)
            .await
    };
    (fanout, $client:expr, $target:expr, $context:expr, $method:expr, $args:expr) => {
        $client
            .transport
            .fanout($target, $context, $method, $args)
            .await
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __rpc_argument {
    ($args:expr, $name:expr) => {
        $crate::__private::argument($args, $name)
    };
    ($args:expr, $name:expr, $default:expr) => {
        $crate::__private::argument_or($args, $name, || $default)
    };
}
