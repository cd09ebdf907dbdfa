// Package schema lists the fields of all records: what each is called, which
// type it has in Elasticsearch, and which datasets have it.
//
// It is the one list of them. The templates for Elasticsearch are made from it,
// and tests hold the encoder and the names that rules use against it.
package schema

import (
	"slices"
	"strings"
)

// ECS is the version of the Elastic Common Schema that the records follow.
const ECS = "9.4.0"

// Dataset is a kind of record. The numbers are those of package output.
type Dataset uint8

// The datasets.
const (
	Handshake Dataset = iota
	Certificate
	Alert
	Stats
	Sighting
	Hello
	Datasets // how many datasets there are
)

var datasetNames = [Datasets]string{"handshake", "certificate", "alert", "stats", "sighting", "hello"}

// String is the last part of event.dataset, such as "handshake".
func (d Dataset) String() string { return datasetNames[d] }

// Stream is the type of the data streams that d goes to: "logs" or "metrics".
func (d Dataset) Stream() string {
	if d == Stats {
		return "metrics"
	}
	return "logs"
}

// DataStream is the name of the data stream of d in a namespace, such as
// logs-oddcert.alert-default.
func (d Dataset) DataStream(namespace string) string {
	return d.Stream() + "-oddcert." + d.String() + "-" + namespace
}

// Set is a set of datasets.
type Set uint8

// The sets that many fields are in.
const (
	Flows = Set(1<<Handshake | 1<<Certificate | 1<<Sighting | 1<<Hello | 1<<Alert) // all that is about a flow
	Every = Flows | 1<<Stats
)

// Only is the set of the given datasets.
func Only(datasets ...Dataset) (s Set) {
	for _, d := range datasets {
		s |= 1 << d
	}
	return s
}

// Has reports whether d is in s.
func (s Set) Has(d Dataset) bool { return s>>d&1 != 0 }

// String is the names of the datasets in s, with spaces between.
func (s Set) String() string {
	var names []string
	for d := range Datasets {
		if s.Has(d) {
			names = append(names, d.String())
		}
	}
	return strings.Join(names, " ")
}

// Type is the type of a field in Elasticsearch.
type Type string

// The types. All servers have them except ConstantKeyword and MatchOnlyText, for
// which Portable has a substitute.
const (
	Boolean         Type = "boolean"
	ConstantKeyword Type = "constant_keyword"
	Date            Type = "date"
	DateNanos       Type = "date_nanos"
	Float           Type = "float"
	IP              Type = "ip"
	Keyword         Type = "keyword"
	Long            Type = "long"
	MatchOnlyText   Type = "match_only_text"
	Nested          Type = "nested"
	Text            Type = "text"
)

// Portable is t, or its substitute where a server might not have t.
func (t Type) Portable() Type {
	switch t {
	case ConstantKeyword:
		return Keyword
	case MatchOnlyText:
		return Text
	}
	return t
}

// Field is one field.
type Field struct {
	// Name is the dotted name. One that ends in ".*" stands for all names below
	// it that are not in the list themselves.
	Name string
	Type Type
	ECS  bool // defined by the Elastic Common Schema

	In   Set  // the datasets whose records have it
	Full bool // a handshake's record has it only where handshakes are recorded in full

	// Template has the datasets whose records do not have the field, but whose
	// template does: as a constant, an alias, the target of a CopyTo, or for
	// what the server sets itself.
	Template Set

	// Constant has the value where it is the same in all records of a dataset.
	Constant map[Dataset]string
	Optional Set // the datasets of In whose records have it only where constants are asked for

	AliasOf string // in the datasets of Template, the field that this is another name of
	CopyTo  string // where the template copies the value to, unless the record has that field

	FoldCase bool // searched without regard to case, as hex digits are
	Opaque   bool // kept in the document, but neither indexed nor aggregated
}

// Fields returns all fields in the order of their names.
func Fields() []Field { return slices.Clone(fields) }

// Lookup returns the field with a dotted name. A name below one that ends in
// ".*" has the fields of that.
func Lookup(name string) (Field, bool) {
	if i, ok := find(name); ok {
		return fields[i], true
	}
	for {
		i := strings.LastIndexByte(name, '.')
		if i < 0 {
			return Field{}, false
		}
		name = name[:i]
		if i, ok := find(name + ".*"); ok {
			return fields[i], true
		}
	}
}

func find(name string) (int, bool) {
	return slices.BinarySearchFunc(fields, name, func(f Field, name string) int { return strings.Compare(f.Name, name) })
}

// Of returns the fields that the template of d has, in the order of their names.
func Of(d Dataset) (of []Field) {
	for _, f := range fields {
		if (f.In | f.Template).Has(d) {
			of = append(of, f)
		}
	}
	return of
}
