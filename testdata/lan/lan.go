// Package lan is the recorded LAN of this directory: what the demo replays where
// it is given no capture. README.md tells what is in it.
package lan

import _ "embed" // the two files below

// Capture is lan.pcap.
//
//go:embed lan.pcap
var Capture []byte

// Truth is truth.json: what the devices of the capture are, as its author knows.
//
//go:embed truth.json
var Truth []byte
