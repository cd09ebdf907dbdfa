package query

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/oddcert/oddcert/sensor/internal/frames"
	"github.com/oddcert/oddcert/sensor/internal/harmless"
)

// graphKeys are the attributes of nodes in GraphML, with their types.
var graphKeys = []struct {
	name, typ string
	value     func(n *Node) string
}{
	{"kind", "string", func(n *Node) string { return string(n.Kind) }},
	{"value", "string", func(n *Node) string { return n.Value }},
	{"label", "string", func(n *Node) string { return n.Label }},
	{"depth", "int", func(n *Node) string { return strconv.Itoa(n.Depth) }},
	{"flags", "string", func(n *Node) string { return strings.Join(n.Flags.Names(), " ") }},
	{"handshakes", "long", func(n *Node) string { return decimal(n.Handshakes) }},
	{"first", "string", func(n *Node) string { return Time(n.First.Time) }},
	{"last", "string", func(n *Node) string { return Time(n.Last.Time) }},
	{"capture", "string", func(n *Node) string { return Where(&n.Last) }},
	{"frame", "long", func(n *Node) string { return decimal(n.Last.Frame) }},
	{"filter", "string", func(n *Node) string { return frames.Filter(n.Last.Flow) }},
}

// WriteGraphML writes the graph as GraphML 1.0 (http://graphml.graphdrawing.org), which
// Gephi, yEd, Cytoscape and NetworkX read. Text is made harmless first, so that no
// character is in it that XML cannot have.
func (g *Graph) WriteGraphML(w io.Writer) error {
	b := bufio.NewWriter(w)
	text := func(s string) {
		_ = xml.EscapeText(b, []byte(harmless.Text(s))) // the error is that of Flush
	}
	b.WriteString(xml.Header + `<graphml xmlns="http://graphml.graphdrawing.org/xmlns" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"` +
		` xsi:schemaLocation="http://graphml.graphdrawing.org/xmlns http://graphml.graphdrawing.org/xmlns/1.0/graphml.xsd">` + "\n")
	for _, k := range graphKeys {
		fmt.Fprintf(b, "  <key id=\"%s\" for=\"node\" attr.name=\"%s\" attr.type=\"%s\"/>\n", k.name, k.name, k.typ)
	}
	b.WriteString("  <key id=\"relation\" for=\"edge\" attr.name=\"relation\" attr.type=\"string\"/>\n" +
		"  <key id=\"left_out\" for=\"graph\" attr.name=\"left_out\" attr.type=\"int\"/>\n" +
		"  <graph id=\"oddcert\" edgedefault=\"directed\">\n")
	fmt.Fprintf(b, "    <data key=\"left_out\">%d</data>\n", g.LeftOut)
	ids := map[*Node]int{}
	for i, n := range g.Nodes {
		ids[n] = i
		fmt.Fprintf(b, "    <node id=\"n%d\">\n", i)
		for _, k := range graphKeys {
			if value := k.value(n); value != "" {
				fmt.Fprintf(b, "      <data key=\"%s\">", k.name)
				text(value)
				b.WriteString("</data>\n")
			}
		}
		b.WriteString("    </node>\n")
	}
	for i, e := range g.Edges {
		fmt.Fprintf(b, "    <edge id=\"e%d\" source=\"n%d\" target=\"n%d\"><data key=\"relation\">%s</data></edge>\n", i, ids[e.From], ids[e.To], e.Relation)
	}
	b.WriteString("  </graph>\n</graphml>\n")
	return b.Flush()
}
