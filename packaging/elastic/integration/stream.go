package main

import (
	"fmt"
	"strings"
)

// fieldLimit is that of the program's templates.
const fieldLimit = 2000

// agentFile is the name of what an agent is told of a data stream.
const agentFile = "filestream.yml.hbs"

// manifest is manifest.yml of the data stream of d.
func (d dataset) manifest(m *mappings) streamManifest {
	return streamManifest{
		Title:   "oddcert " + strings.ToLower(d.title),
		Type:    d.stream,
		Dataset: d.String(),
		Streams: []stream{{
			Input: "filestream", TemplatePath: agentFile, Title: d.title, Description: d.description,
		}},
		Elasticsearch: streamElasticsearch{indexTemplate{
			Settings: indexSettings{indexSetting{
				Codec: "best_compression", Mapping: mappingLimit{limit{fieldLimit}},
			}},
			Mappings: indexMappings{Dynamic: m.Dynamic, DateDetection: m.DateDetection, DynamicTemplates: generalTemplates(m)},
		}},
	}
}

// linePattern matches the lines of d in a file of records. Foreign text cannot look
// like it: in JSON a quotation mark inside of a text has a backslash before it.
func (d dataset) linePattern() string { return `"dataset":"oddcert\.` + d.name + `"` }

// agentTemplate is what Elastic Agent is told of d: each data stream reads the same
// files, and takes the lines of its own dataset. Nothing is known of the records
// there; the pipeline reads them.
func (d dataset) agentTemplate() string {
	return fmt.Sprintf(`paths:
{{#each paths}}
  - {{this}}
{{/each}}
include_lines:
  - '%s'
publisher_pipeline.disable_host: true
`, d.linePattern())
}

// pipeline is the ingest pipeline of a data stream. What oddcert sends itself goes
// through unchanged, but for event.ingested. A line that an agent has read from a
// file is the whole record, in message; it gets the document that oddcert would have
// sent, under the same id.
func (d dataset) pipeline() pipeline {
	const line = `ctx.message instanceof String && ctx.message.startsWith('{"@timestamp":')`
	return pipeline{
		Description: "Reads records of oddcert that an agent took from a file, and sets event.ingested.",
		Processors: []processor{
			// On a mirror port the host is the sensor, not one that took part; log.file is the
			// capture of a replay, not the file of records.
			{"remove": {If: line, Field: []string{"host", "input", "log", "agent.name", "agent.type", "agent.version"}, IgnoreMissing: true}},
			// The members of the record take the place of those of the agent. An alert has a
			// message of its own.
			{"json": {If: line, Field: "message", AddToRoot: true}},
			{"remove": {If: line, Field: "message"}},
			{"set": {Field: "_id", Value: "{{{event.id}}}", IgnoreEmptyValue: true}},
			{"set": {Field: "event.ingested", Value: "{{{_ingest.timestamp}}}"}},
		},
		// A line that is no record stays in the document.
		OnFailure: []processor{
			{"append": {Field: "error.message", Value: "{{{_ingest.on_failure_message}}}"}},
		},
	}
}
