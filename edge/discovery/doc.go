// Package discovery turns the frames of a LAN into observations about the devices on it.
//
// A [Capture] delivers Ethernet frames: [OpenLive] from an interface (AF_PACKET), [OpenFile] from a
// pcap or pcapng file, paced like the LAN it stands for. A [Parser] gives each frame to the [Source] that
// wants it (ARP, IPv6 neighbour discovery, DHCP, SSDP or mDNS) and returns at most one [Observation]. Both
// captures go through the same parser, so a replayed capture and a live LAN give the same records.
//
// To add a protocol, see [Source].
//
// Everything on a LAN can be forged. An observation is evidence: it says what was announced and by
// which MAC, and the parser keeps only what the sender can speak for (a record about somebody else's
// address is not evidence about the sender). Decoding is bounded: text is cut to [MaxValueBytes] and
// stripped of control characters, sets to [MaxSetMembers], DNS messages and SSDP headers to fixed
// counts. What is malformed is counted in [Stats] by protocol and never fails the stream.
//
// Specifications: RFC 826 and 5227 (ARP), 2131, 2132, 4702 and 8520 (DHCP and its options), 4861 (neighbour
// discovery), 6762 and 6763 (mDNS and DNS-SD), UPnP Device Architecture 2.0 section 1 (SSDP), DIAL 2.2.
package discovery
