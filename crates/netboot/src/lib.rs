//! Undercroft's DHCP, proxyDHCP, TFTP and HTTP boot servers.
