#!/usr/bin/env bash
# A teacher behind a real endpoint, offline: `transformers serve` with the embedded model writes demonstrations for a
# micro task; the run is stopped twice and goes on. About a minute on two cores. Any OpenAI-compatible server works:
#
#     MODEL=org/model URL=http://host:8000/v1 recipes/teacher.sh        # KEY_ENV=NAME if $NAME has its key
#
# Without URL it needs: pip install 'transformers[serving]' (part of the development set-up).
set -euo pipefail

OUT=${OUT:-runs/teacher}
PORT=${PORT:-8765}
TASK=micro-science
mkdir -p "$OUT"

if [ -z "${URL:-}" ]; then
  # The server samples only if the model's own settings say so, whatever the temperature of a request.
  MODEL=$OUT/model
  python - "$MODEL" <<'PY'
import json, shutil, sys
from sdft_cli.config.model_locations import EMBEDDED
shutil.copytree(EMBEDDED, sys.argv[1], dirs_exist_ok=True)
path = f"{sys.argv[1]}/generation_config.json"
settings = json.load(open(path))
json.dump({**settings, "do_sample": True}, open(path, "w"))
PY
  HF_HUB_OFFLINE=1 transformers serve "$MODEL" --port "$PORT" --device cpu >"$OUT/server.log" 2>&1 &
  SERVER=$!
  trap 'kill $SERVER' EXIT
  URL=http://127.0.0.1:$PORT/v1
  until curl -sf "http://127.0.0.1:$PORT/health" >"$OUT/health"; do kill -0 $SERVER; sleep 1; done
fi

prepare=(sdft prepare --tasks "$TASK" --data "$OUT/data" --resample --samples 4
  --teacher "$MODEL" --base-url "$URL" --concurrency 8 ${KEY_ENV:+--api-key-env "$KEY_ENV"})

"${prepare[@]}" --dry-run                                                         # what would be asked; sends nothing
"${prepare[@]}" --max-requests 100 || echo "stopped by the budget: exit code $?"  # every reply is stored
timeout -s KILL 20 "${prepare[@]}" || echo "killed: exit code $?"
"${prepare[@]}"                                                                   # goes on from there
