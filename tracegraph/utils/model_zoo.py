"""Files from the web, under the name that older programs import."""

from tracegraph.hub import download_url_to_file as _download_url_to_file
from tracegraph.hub import load_state_dict_from_url as load_url

__all__ = ["_download_url_to_file", "load_url"]
