//! `/u/TOKEN`: the recipient of a message wants no more. Open to all: the token is the right.
//!
//! Rules that always hold (RFC 8058):
//! - a POST does it, without a cookie, a redirect or a question, and says the same however often it comes;
//! - a GET shows a page with a button and changes nothing: programs that look at links do not click on it;
//! - nothing of the request stands on the page.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use axum::response::IntoResponse;

use super::body;
use super::means::{Clicked, Means};

/// Before the token.
const PATH: &str = "/u/";
/// A form with one field.
const BODY_MAX: usize = 16 << 10;
/// As everywhere, but for the button, which may send its form to where it came from.
const CSP: &str =
    "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; sandbox allow-forms";

/// Answers it; none: the path is another, or nobody unsubscribes here.
pub(super) async fn answer<M: Means>(means: &M, request: &mut Request<Body>, client: IpAddr) -> Option<Response<Body>> {
    let token = request.uri().path().strip_prefix(PATH)?.to_string();
    let clicked = match *request.method() {
        Method::GET | Method::HEAD => means.peek(&token),
        Method::POST => {
            // What the form says adds nothing to the token; a form that never ends is another matter.
            if body::whole(request.body_mut(), BODY_MAX).await.is_err() {
                return Some(page(
                    StatusCode::BAD_REQUEST,
                    "This request is not understood",
                    "Please try again.",
                    false,
                ));
            }
            means.click(&token, client).await
        }
        _ => return None,
    };
    let is_asked = *request.method() != Method::POST;
    let sorry = "Please use the link of a newer message, or write to its sender.";
    Some(match clicked {
        Clicked::Off => return None,
        Clicked::Done if is_asked => page(
            StatusCode::OK,
            "Unsubscribe",
            "Press the button, and you will get no more mail from this sender.",
            true,
        ),
        Clicked::Done => {
            page(StatusCode::OK, "You are unsubscribed", "You will get no more mail from this sender.", false)
        }
        Clicked::Expired => page(StatusCode::GONE, "This link has expired", sorry, false),
        Clicked::Unknown => page(StatusCode::NOT_FOUND, "This link is not known", sorry, false),
        Clicked::Failed => {
            let mut page = page(
                StatusCode::SERVICE_UNAVAILABLE,
                "This cannot be done just now",
                "Please try again in some minutes.",
                false,
            );
            page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("60"));
            page
        }
    })
}

fn page(status: StatusCode, title: &'static str, text: &'static str, has_button: bool) -> Response<Body> {
    let button = match has_button {
        true => {
            "<form method=\"post\"><input type=\"hidden\" name=\"List-Unsubscribe\" value=\"One-Click\">\
             <button type=\"submit\">Unsubscribe</button></form>\n"
        }
        false => "",
    };
    let html = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><meta name=\"robots\" content=\"noindex\">\
         <title>{title}</title></head>\n<body><h1>{title}</h1>\n<p>{text}</p>\n{button}</body></html>\n"
    );
    let fields = [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, CSP)];
    (status, fields, html).into_response()
}
