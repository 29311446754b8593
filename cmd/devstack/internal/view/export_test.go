package view

// Picture is what Screen draws of one look.
func Picture(source Source) string {
	m, _ := screen{source: source, width: 100, height: 40}.Update(source.look())
	return m.(screen).View().Content
}
