package discovery

import (
	"encoding/binary"
	"math"

	"golang.org/x/net/bpf"
)

const (
	// snapTraffic is how much of a frame is captured that only shows its sender's presence.
	snapTraffic = 96
	// maxFilter is the kernel's limit on a program (BPF_MAXINSNS).
	maxFilter = 4096
)

// captureFilter returns a classic BPF program that passes the frames that the sources of t want whole,
// with up to one VLAN tag, and the first bytes of one in sample of all other frames, by chance; 0 passes
// none of those.
//
// The program is made of blocks. Each is entered when its condition holds, and left by falling through.
func captureFilter(t *sourceTable, sample uint32) ([]bpf.RawInstruction, error) {
	const vlanTag = 4
	program := []bpf.Instruction{bpf.LoadAbsolute{Off: 12, Size: 2}}
	for _, tag := range []uint32{etherVLAN, etherQinQ} {
		tagged := append([]bpf.Instruction{bpf.LoadAbsolute{Off: 12 + vlanTag, Size: 2}}, t.networkFilter(ethHeader+vlanTag)...)
		program = append(program, when(bpf.JumpEqual, tag, tagged)...)
		program = append(program, bpf.LoadAbsolute{Off: 12, Size: 2})
	}
	program = append(program, t.networkFilter(ethHeader)...)
	if sample > 0 {
		program = append(program, bpf.LoadExtension{Num: bpf.ExtRand}, bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: sample})
		program = append(program, when(bpf.JumpEqual, 0, []bpf.Instruction{bpf.RetConstant{Val: snapTraffic}})...)
	}
	return bpf.Assemble(append(program, bpf.RetConstant{Val: 0}))
}

// networkFilter expects the EtherType in A and the network header at off. It returns from the program,
// or leaves A undefined.
func (t *sourceTable) networkFilter(off uint32) []bpf.Instruction {
	const (
		moreOrOffset   = 0x3fff // fragment bits
		fragmentOffset = 6
		protocolOffset = 9
		nextHeader     = 6
	)
	var program, ipv4, ipv6 []bpf.Instruction
	for _, r := range t.byEtherType {
		program = append(program, when(bpf.JumpEqual, uint32(r.EtherType), passWhole)...)
	}
	for proto, rules := range t.byIPProtocol {
		if block := payloadFilter(off, etherIPv4, rules); len(block) > 0 {
			block = append([]bpf.Instruction{bpf.LoadMemShift{Off: off}}, block...)
			block = append([]bpf.Instruction{bpf.LoadAbsolute{Off: off + fragmentOffset, Size: 2}}, when(bpf.JumpBitsNotSet, moreOrOffset, block)...)
			ipv4 = append(ipv4, bpf.LoadAbsolute{Off: off + protocolOffset, Size: 1})
			ipv4 = append(ipv4, when(bpf.JumpEqual, uint32(proto), block)...)
		}
		if block := payloadFilter(off, etherIPv6, rules); len(block) > 0 {
			block = append([]bpf.Instruction{bpf.LoadConstant{Dst: bpf.RegX, Val: ipv6Header}}, block...)
			ipv6 = append(ipv6, bpf.LoadAbsolute{Off: off + nextHeader, Size: 1})
			ipv6 = append(ipv6, when(bpf.JumpEqual, uint32(proto), block)...)
		}
	}
	program = append(program, when(bpf.JumpEqual, etherIPv4, ipv4)...)
	// The block may have changed A.
	program = append(program, bpf.LoadAbsolute{Off: off - 2, Size: 2})
	return append(program, when(bpf.JumpEqual, etherIPv6, ipv6)...)
}

var passWhole = []bpf.Instruction{bpf.RetConstant{Val: captureLength}}

// payloadFilter passes packets of one IP protocol that meet one of rules. It expects the length of the IP
// header in X. A load past the packet's end ends the program, so what compares the payload comes last.
func payloadFilter(off uint32, etherType uint16, rules []rule) []bpf.Instruction {
	var ports, prefixes []bpf.Instruction
	for _, r := range rules {
		switch {
		case r.EtherType != 0 && r.EtherType != etherType:
		case r.Prefix == "":
			ports = append(ports, ruleFilter(off, r.FrameMatch)...)
		default:
			prefixes = append(prefixes, ruleFilter(off, r.FrameMatch)...)
		}
	}
	return append(ports, prefixes...)
}

// ruleFilter passes packets that meet m. It expects the length of the IP header in X.
func ruleFilter(off uint32, m FrameMatch) []bpf.Instruction {
	block := passWhole
	if m.Prefix != "" {
		block = loadAndTest(off+udpHeader, filterPrefix, bpf.JumpEqual, binary.BigEndian.Uint32([]byte(m.Prefix)), block)
	}
	if m.FromPort != 0 {
		block = loadAndTest(off, 2, bpf.JumpEqual, uint32(m.FromPort), block)
	}
	if m.ToPort != 0 {
		block = loadAndTest(off+2, 2, bpf.JumpEqual, uint32(m.ToPort), block)
	}
	if m.LastType != 0 {
		block = loadAndTest(off, 1, bpf.JumpGreaterOrEqual, uint32(m.FirstType), when(bpf.JumpLessOrEqual, uint32(m.LastType), block))
	}
	return block
}

// loadAndTest runs block if the size bytes at off, counted from the end of the IP header's length in X,
// meet the condition.
func loadAndTest(off uint32, size int, cond bpf.JumpTest, value uint32, block []bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.LoadIndirect{Off: off, Size: size}}, when(cond, value, block)...)
}

// when runs block if A meets the condition. A conditional jump skips at most 255 instructions; a longer
// block is skipped by an unconditional one.
func when(cond bpf.JumpTest, value uint32, block []bpf.Instruction) []bpf.Instruction {
	if len(block) <= math.MaxUint8 {
		return append([]bpf.Instruction{bpf.JumpIf{Cond: cond, Val: value, SkipFalse: uint8(len(block))}}, block...)
	}
	return append([]bpf.Instruction{
		bpf.JumpIf{Cond: cond, Val: value, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(block))},
	}, block...)
}
