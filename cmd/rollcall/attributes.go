package main

import (
	"cmp"
	"strings"
	"text/tabwriter"

	"github.com/rollcall-platform/rollcall/internal/cli"
	"github.com/rollcall-platform/rollcall/internal/device"
)

type attributesCmd struct {
	Output outputFlag `short:"o" help:"Print a ${enum}." enum:"table,json" default:"table"`
}

// Help is printed by attributes --help.
func (*attributesCmd) Help() string {
	return `Lists the attributes that the platform itself sets, reads or shows: of each its type, who sets it (discovery: what the device says on the LAN; registry: what the RAE concludes; reserved: nobody yet), the kind of identity that it is evidence of, and the Temporal search attribute that shows it. A lab may set others: they are stored and shown all the same.

Examples:

    rollcall attributes

    rollcall attributes -o json | jq -r '.attributes[] | select(.search_attribute) | .name'

    temporal workflow list --query "ConnectionStatus='offline'"`
}

// attribute is an entry of the vocabulary, as JSON has it.
type attribute struct {
	Name     string              `json:"name"`
	Type     device.ValueType    `json:"type"`
	Values   []string            `json:"values,omitempty"` // all that it may be
	SetBy    device.Setter       `json:"set_by"`
	Identity device.IdentityKind `json:"identity,omitempty"`
	Search   string              `json:"search_attribute,omitempty"`
	Card     string              `json:"card_label,omitempty"`
	Urgent   bool                `json:"urgent,omitempty"`
	About    string              `json:"about"`
}

// Run lists.
func (c *attributesCmd) Run(env cli.Env) error {
	var page struct {
		Attributes []attribute `json:"attributes"`
	}
	for _, a := range device.Vocabulary {
		page.Attributes = append(page.Attributes, attribute(a))
	}
	return c.Output.write(env.Stdout, page, func(w *tabwriter.Writer) {
		row(w, "ATTRIBUTE", "TYPE", "SET BY", "IDENTITY", "SEARCH ATTRIBUTE", "ABOUT")
		for _, a := range page.Attributes {
			kind := string(a.Type)
			if len(a.Values) > 0 {
				kind = strings.Join(a.Values, "|")
			}
			row(w, a.Name, kind, a.SetBy, cmp.Or(string(a.Identity), "-"), cmp.Or(a.Search, "-"), a.About)
		}
	})
}
