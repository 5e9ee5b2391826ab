//! The routes of the operator's side, which know what they are: a test compares them with the OpenAPI document.
//!
//! A route is added where its part has its `routes()`, described in `openapi.json`, and asked for in `tests/tests/e2e/openapi.rs`.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::routing::{MethodRouter, delete, get, post, put};
use http::Method;

use super::Admin;
use super::refused::{no_such_method, no_such_path};

/// Some routes.
#[derive(Debug, Default)]
pub struct Routes {
    routes: Router<Arc<Admin>>,
    operations: Vec<(Method, String)>,
}

impl Routes {
    /// Answers `GET`.
    pub fn get<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<Admin>>) -> Routes {
        self.add(Method::GET, path, get(handler))
    }

    /// Answers `POST`.
    pub fn post<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<Admin>>) -> Routes {
        self.add(Method::POST, path, post(handler))
    }

    /// Answers `PUT`.
    pub fn put<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<Admin>>) -> Routes {
        self.add(Method::PUT, path, put(handler))
    }

    /// Answers `DELETE`.
    pub fn delete<T: 'static>(self, path: &str, handler: impl Handler<T, Arc<Admin>>) -> Routes {
        self.add(Method::DELETE, path, delete(handler))
    }

    /// Takes no larger bodies.
    pub fn bounded(mut self, max_bytes: usize) -> Routes {
        self.routes = self.routes.layer(DefaultBodyLimit::max(max_bytes));
        self
    }

    /// These and the others.
    pub fn merge(mut self, others: Routes) -> Routes {
        self.routes = self.routes.merge(others.routes);
        self.operations.extend(others.operations);
        self
    }

    /// The method and the path of each.
    pub fn operations(self) -> Vec<(Method, String)> {
        self.operations
    }

    /// The routes as a listener serves them, with an answer for what is none of them.
    pub fn serve(self, admin: Arc<Admin>) -> Router {
        let routes = self.routes.method_not_allowed_fallback(no_such_method).fallback(no_such_path);
        routes.with_state(admin)
    }

    fn add(mut self, method: Method, path: &str, answer: MethodRouter<Arc<Admin>>) -> Routes {
        self.routes = self.routes.route(path, answer);
        self.operations.push((method, path.to_owned()));
        self
    }
}
