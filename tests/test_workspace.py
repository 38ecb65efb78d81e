import pytest

from fmseg.errors import BadRecord, UnknownName, UsageError
from fmseg.workspace import Workspace, dataset_title


@pytest.fixture
def workspace(tmp_path):
    for name in ("Dataset501_Heads", "Dataset502_HeadsAfrica", "Dataset1000_Planes"):
        (tmp_path / "fmseg_raw" / name).mkdir(parents=True)
    return Workspace.find(tmp_path)


@pytest.mark.parametrize("text", ["501", "Dataset501_Heads", "0501"])
def test_a_dataset_is_found_by_id_and_name(workspace, text):
    assert workspace.dataset_name(text) == "Dataset501_Heads"


def test_a_part_of_a_name_must_fit_one_dataset(workspace):
    assert workspace.dataset_name("plan") == "Dataset1000_Planes"
    with pytest.raises(UsageError, match="several datasets: Dataset501_Heads, Dataset502_HeadsAfrica"):
        workspace.dataset_name("heads")


def test_an_unknown_dataset_is_answered_with_what_is_there(workspace):
    with pytest.raises(UnknownName, match=r"No dataset is called '503'.*Dataset501_Heads.*fmseg_raw"):
        workspace.dataset_name("503")


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("K\u00f6pfe 1", "Kopfe_1"),
        ("Ko\u0308pfe", "Kopfe"),
        ("Dataset007_S\u00e3o", "Sao"),
        ("\u8d85\u58f0", "Images"),
    ],
)
def test_a_title_keeps_letters_without_their_accents(text, title):
    assert dataset_title(text) == title


@pytest.mark.parametrize("text", ["610", "Dataset610_Guests", "guests"])
def test_models_without_data_are_answered_with_what_they_can_do(workspace, text):
    folder = workspace.results_of("Dataset610_Guests") / "finetune__fmsegPlans" / "fold_0"
    folder.mkdir(parents=True)
    (folder / "finished.json").write_text("{}")
    with pytest.raises(UnknownName, match=r"Dataset610_Guests.* models only.*fmseg predict .* -d 610.*external-cohort"):
        workspace.dataset_name(text)


def test_variables_and_settings_move_the_roots(tmp_path, monkeypatch):
    (tmp_path / "fmseg.toml").write_text('fmseg_results = "elsewhere"\nplugins = ["my_lab"]')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("fmseg_raw", str(tmp_path / "raw"))
    workspace = Workspace.find()
    assert workspace.raw == tmp_path / "raw"
    assert workspace.results == tmp_path / "elsewhere"
    assert workspace.plugins == ("my_lab",)


def test_a_misspelt_setting_is_named(tmp_path):
    (tmp_path / "fmseg.toml").write_text('fmseg_result = "x"')
    with pytest.raises(BadRecord, match="Did you mean 'fmseg_results'"):
        Workspace.find(tmp_path)
