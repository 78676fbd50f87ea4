//! Where routes are registered: at the server, or at what makes the document of them. Whoever serves them so carries nothing of
//! what describes them.

use actix_web::dev::HttpServiceFactory;
use actix_web::web;
use utoipa_actix_web::OpenApiFactory;
use utoipa_actix_web::service_config::ServiceConfig as Described;

/// Takes routes.
pub trait Register: Sized {
    /// Adds one.
    fn route(&mut self, route: impl HttpServiceFactory + OpenApiFactory + 'static) -> &mut Self;

    /// Adds some below a path.
    fn scope(&mut self, path: &str, routes: impl Routes) -> &mut Self;

    /// Adds some that the document does not list.
    fn unlisted(&mut self, routes: fn(&mut web::ServiceConfig) -> &mut web::ServiceConfig) -> &mut Self;
}

/// Routes that belong together.
pub trait Routes {
    fn register(self, to: &mut impl Register);
}

impl Register for web::ServiceConfig {
    fn route(&mut self, route: impl HttpServiceFactory + OpenApiFactory + 'static) -> &mut Self {
        self.service(route)
    }

    fn scope(&mut self, path: &str, routes: impl Routes) -> &mut Self {
        self.service(web::scope(path).configure(|config| routes.register(config)))
    }

    fn unlisted(&mut self, routes: fn(&mut Self) -> &mut Self) -> &mut Self {
        routes(self)
    }
}

impl Register for Described<'_> {
    fn route(&mut self, route: impl HttpServiceFactory + OpenApiFactory + 'static) -> &mut Self {
        self.service(route)
    }

    fn scope(&mut self, path: &str, routes: impl Routes) -> &mut Self {
        self.service(utoipa_actix_web::scope(path).configure(|config| routes.register(config)))
    }

    fn unlisted(&mut self, routes: fn(&mut web::ServiceConfig) -> &mut web::ServiceConfig) -> &mut Self {
        self.map(routes)
    }
}
