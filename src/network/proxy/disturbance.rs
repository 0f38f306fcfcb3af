//! Tells when another program deletes nftables tables or changes base chains: firewalls reload, administrators flush.
//!
//! The kernel wakes us; nothing polls. Our own changes (elements, rules, chains of our own tables) wake and are ignored.

use super::conntrack::{find, message_in};
use rtnetlink::sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use std::time::Duration;

const NETLINK_NETFILTER: isize = 12;
/// `NFNLGRP_NFTABLES`
const GROUP: u32 = 7;
const SUBSYSTEM: u16 = 10 << 8;
const DELETED_TABLE: u16 = SUBSYSTEM | 2;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
/// `NFTA_CHAIN_HOOK`: only base chains have it.
const HOOK: u16 = 4;
/// `NFTA_TABLE_NAME` and `NFTA_CHAIN_TABLE`.
const TABLE: u16 = 1;
/// A reload is a burst; this is how long it must be quiet before it is looked at.
const QUIET: Duration = Duration::from_millis(200);

pub(super) struct Watch {
    /// `None`: this kernel or this user cannot watch; a failed change still heals.
    socket: Option<TokioSocket>,
    own: [String; 2],
}

impl Watch {
    pub(super) fn open(own: [String; 2]) -> Self {
        let open = || -> std::io::Result<TokioSocket> {
            let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
            socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
            socket.socket_mut().add_membership(GROUP)?;
            Ok(socket)
        };
        let socket = open().inspect_err(|error| tracing::debug!(%error, "changes of nftables cannot be watched")).ok();
        Self { socket, own }
    }

    /// Resolves after other programs' changes have come to rest. Cancel safe.
    pub(super) async fn next(&mut self) {
        let Some(socket) = &mut self.socket else { return std::future::pending().await };
        loop {
            match socket.recv_from_full().await {
                Ok((messages, _)) if disturbs(&messages, &self.own) => break,
                Ok(_) => {}
                // Overrun: something changed, and much of it.
                Err(_) => break,
            }
        }
        while tokio::time::timeout(QUIET, socket.recv_from_full()).await.is_ok_and(|read| read.is_ok()) {}
    }
}

/// Whether a deleted table is in the messages, or a new base chain of somebody else. That a table of ours was deleted
/// counts too: we replace ours now and then, and only a look at the tables tells the difference.
fn disturbs(mut messages: &[u8], own: &[String; 2]) -> bool {
    while let Some((kind, payload, rest)) = message_in(messages) {
        let attributes = payload.get(4..).unwrap_or_default();
        let table = find(attributes, TABLE).unwrap_or_default();
        let ours = own.iter().any(|name| table.strip_suffix(&[0]).unwrap_or(table) == name.as_bytes());
        match kind {
            DELETED_TABLE => return true,
            NEW_CHAIN if !ours && find(attributes, HOOK).is_some() => return true,
            _ => {}
        }
        messages = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut payload = vec![2, 0, 0, 0];
        for (kind, value) in attributes {
            payload.extend((4 + value.len() as u16).to_ne_bytes());
            payload.extend(kind.to_ne_bytes());
            payload.extend(*value);
            payload.resize(payload.len().next_multiple_of(4), 0);
        }
        let mut bytes = (16 + payload.len() as u32).to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(payload);
        bytes
    }

    #[test]
    fn only_what_others_do_to_hooks_and_tables_disturbs() {
        let own = ["mini".to_owned(), "mini-services".to_owned()];
        let chain = |table: &[u8]| message(NEW_CHAIN, &[(TABLE, table), (HOOK, &[])]);
        assert!(disturbs(&[chain(b"mini\0"), chain(b"firewalld\0")].concat(), &own));
        assert!(!disturbs(&chain(b"mini-services\0"), &own));
        assert!(!disturbs(&message(NEW_CHAIN, &[(TABLE, b"docker\0")]), &own), "no base chain");
        assert!(disturbs(&message(DELETED_TABLE, &[(TABLE, b"mini\0")]), &own));
    }
}
