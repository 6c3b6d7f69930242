# trap EXIT writes the output at the very end, after exit was called
finish() {
  code=$?
  cronium_output "{\"code\": $code, \"steps\": $(wc -l < steps)}"
  rm steps
}
trap finish EXIT
echo one > steps
echo two >> steps
exit 3
