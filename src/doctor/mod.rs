//! Doctor: is this host fit to send mail to Outlook.com?

pub mod spf;
