//! The way in for components of this process: no sockets, same filters from just after authn.

use crate::body::{Body, BoxError};
use crate::handler;
use crate::{ApiServer, UserInfo};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::BodyExt;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A tower service that carries requests of one user to the server.
#[derive(Clone)]
pub struct LocalService {
    server: Arc<ApiServer>,
    user: Arc<UserInfo>,
}

impl LocalService {
    pub(crate) fn new(server: Arc<ApiServer>, user: UserInfo) -> Self {
        Self { server, user: Arc::new(user) }
    }
}

impl<B> tower::Service<Request<B>> for LocalService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (server, user) = (self.server.clone(), self.user.clone());
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        Box::pin(async move { Ok(handler::serve_inside(server, user, request).await) })
    }
}
