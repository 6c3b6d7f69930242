# the empty string is an output; a helper without argument makes an empty line, which is none
cronium_output
cronium_output '""'
