#!/usr/bin/env bash
# From five files as teams have them to one accuracy matrix: intents (CSV), SQL with its database (JSONL), function calls
# (chat messages), medical questions (Parquet), a handbook (Markdown). Answers in free text are scored by a judge, and
# questions about the handbook are written by a teacher, both behind an endpoint:
#
#     MODEL=org/model URL=http://host:8000/v1 JUDGE=org/judge TEACHER=org/teacher bash recipes/five-layouts/run.sh
#
# Everything after the script's name goes to `sdft train`: --set train.lr=1e-5 --engine vllm …
set -euo pipefail

: "${MODEL:?the model that is trained: a folder or a hub id}"
: "${URL:?an OpenAI-compatible endpoint, such as http://host:8000/v1}"
: "${JUDGE:?the name of the model that judges answers in free text}"
TEACHER=${TEACHER:-$JUDGE}
OUT=${OUT:-runs/five-layouts}
sources=$OUT/sources

[ -d "$sources" ] || python "$(dirname "$0")/make_sources.py" "$sources"

# The files say themselves what is what, but for the columns of the CSV.
sdft prepare --data "$OUT/data" \
  --source intents="$sources/intents.csv" --columns intents:prompt=Utterance,answer=Intent \
  --source sql="$sources/sql/questions.jsonl" \
  --source functions="$sources/functions.jsonl" \
  --source clinic="$sources/clinic"
sdft prepare --data "$OUT/data" --source handbook="$sources/handbook" \
  --teacher "$TEACHER" --base-url "$URL" --questions "${QUESTIONS:-20}" --samples 4

run=(--tasks intents,sql,functions,clinic,handbook --data "$OUT/data" --model "$MODEL"
  --judge "$JUDGE" --judge-base-url "$URL" --out "$OUT/run" "$@")
sdft train "${run[@]}" --dry-run # also what the judge will be asked, and what that may cost
sdft train "${run[@]}"
sdft report "$OUT/run" --out "$OUT/report"
