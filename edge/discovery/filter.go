package discovery

import "golang.org/x/net/bpf"

// snapTraffic is how much of a frame is captured that only shows its sender's presence.
const snapTraffic = 96

// captureFilter returns a classic BPF program that passes what the parser reads (ARP, neighbour
// discovery, DHCP, SSDP and mDNS, with up to one VLAN tag in the frame) whole, and the first bytes of
// one in sample of all other frames, by chance; 0 passes none of those.
//
// The program is made of blocks, each entered when its condition holds and left by falling through.
func captureFilter(sample uint32) ([]bpf.RawInstruction, error) {
	const vlanTag = 4
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: 12, Size: 2}}
	for _, tag := range []uint32{etherVLAN, etherQinQ} {
		tagged := append([]bpf.Instruction{bpf.LoadAbsolute{Off: 12 + vlanTag, Size: 2}}, networkFilter(ethHeader+vlanTag)...)
		program = append(program, when(bpf.JumpEqual, tag, tagged)...)
		program = append(program, bpf.LoadAbsolute{Off: 12, Size: 2})
	}
	program = append(program, networkFilter(ethHeader)...)
	if sample > 0 {
		program = append(program, bpf.LoadExtension{Num: bpf.ExtRand}, bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: sample})
		program = append(program, when(bpf.JumpEqual, 0, []bpf.Instruction{bpf.RetConstant{Val: snapTraffic}})...)
	}
	return bpf.Assemble(append(program, bpf.RetConstant{Val: 0}))
}

// networkFilter expects the EtherType in A and the network header at off. It returns from the program,
// or leaves A undefined.
func networkFilter(off uint32) []bpf.Instruction {
	const moreOrOffset = 0x3fff
	ipv4 := []bpf.Instruction{bpf.LoadAbsolute{Off: off + 9, Size: 1}}
	ipv4 = append(ipv4, when(bpf.JumpEqual, ipUDP, append(
		[]bpf.Instruction{bpf.LoadAbsolute{Off: off + 6, Size: 2}},
		when(bpf.JumpBitsNotSet, moreOrOffset, append(
			[]bpf.Instruction{bpf.LoadMemShift{Off: off}},
			udpFilter(off)...))...))...)

	ipv6 := []bpf.Instruction{bpf.LoadAbsolute{Off: off + 6, Size: 1}}
	ipv6 = append(ipv6, when(bpf.JumpEqual, ipUDP, append(
		[]bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6Header}},
		udpFilter(off)...))...)
	ipv6 = append(ipv6, bpf.LoadAbsolute{Off: off + 6, Size: 1})
	ipv6 = append(ipv6, when(bpf.JumpEqual, ipICMPv6, append(
		[]bpf.Instruction{bpf.LoadAbsolute{Off: off + ipv6Header, Size: 1}},
		when(bpf.JumpGreaterOrEqual, ndRouterSolicitation,
			when(bpf.JumpLessOrEqual, ndNeighbourAdvert, passWhole))...))...)

	// A block may leave A changed, but not to another EtherType that is looked for: load it anew.
	program := when(bpf.JumpEqual, etherARP, passWhole)
	program = append(program, when(bpf.JumpEqual, etherIPv4, ipv4)...)
	program = append(program, bpf.LoadAbsolute{Off: off - 2, Size: 2})
	return append(program, when(bpf.JumpEqual, etherIPv6, ipv6)...)
}

var passWhole = []bpf.Instruction{bpf.RetConstant{Val: captureLength}}

// udpFilter expects the length of the IP header in X.
func udpFilter(off uint32) []bpf.Instruction {
	program := []bpf.Instruction{bpf.LoadIndirect{Off: off + 2, Size: 2}} // destination port
	for _, port := range []uint32{portDHCPServer, portDHCPClient, portSSDP, portMDNS} {
		program = append(program, when(bpf.JumpEqual, port, passWhole)...)
	}
	program = append(program, bpf.LoadIndirect{Off: off, Size: 2}) // source port
	for _, port := range []uint32{portSSDP, portMDNS} {
		program = append(program, when(bpf.JumpEqual, port, passWhole)...)
	}
	const http = 0x48545450 // a search response from any port
	program = append(program, bpf.LoadIndirect{Off: off + udpHeader, Size: 4})
	return append(program, when(bpf.JumpEqual, http, passWhole)...)
}

// when runs block if A meets the condition.
func when(cond bpf.JumpTest, value uint32, block []bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: cond, Val: value, SkipFalse: uint8(len(block))}}, block...)
}
