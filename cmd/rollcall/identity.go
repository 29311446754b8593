package main

import (
	"io"

	"github.com/rollcall-platform/rollcall/internal/store"
)

func spanRow(w io.Writer, i store.Identity) {
	row(w, i.Kind, clip(i.Value), stamp(i.ValidFrom), orElse(stamp(i.ValidTo), "now"), i.Attribute, i.Session)
}
