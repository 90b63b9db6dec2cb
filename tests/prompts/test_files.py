"""Tasks read from files and folders."""

import itertools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quatrain.config import ConfigError, TaskConfig
from quatrain.prompts import open_task

ROWS = [{"prompt": f"{n} + 1?", "answer": str(n + 1), "level": n} for n in range(5)]


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def save_to_disk(folder, rows):
    """The files that datasets.Dataset.save_to_disk writes."""
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(rows)
    with pa.ipc.new_stream(folder / "data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def opened(path, **settings):
    return open_task(TaskConfig(name=str(path), **settings))


def refused(path, **settings):
    with pytest.raises(ConfigError) as caught:
        opened(path, **settings)
    return str(caught.value)


def epoch(task, seed=0, number=0):
    return list(itertools.islice(task.problems(seed, number * task.size), task.size))


@pytest.mark.parametrize(("write", "name"), [(write_jsonl, "p.jsonl"), (write_parquet, "p.parquet"), (save_to_disk, "saved")])
def test_all_forms_read_the_same(tmp_path, write, name):
    task = opened(write(tmp_path / name, ROWS))
    assert task.size == 5
    assert [(p.question, p.answer, p.info) for p in task.rows] == [
        (r["prompt"], r["answer"], {"level": r["level"]}) for r in ROWS
    ]


class TestStream:
    def test_an_epoch_has_every_row_once(self, tmp_path):
        task = opened(write_jsonl(tmp_path / "p.jsonl", ROWS))
        for number in range(3):
            assert sorted(p.question for p in epoch(task, number=number)) == sorted(r["prompt"] for r in ROWS)

    def test_epochs_and_seeds_have_orders_of_their_own(self, tmp_path):
        task = opened(write_jsonl(tmp_path / "p.jsonl", [{"prompt": str(n), "answer": ""} for n in range(30)]))
        assert epoch(task) != epoch(task, number=1)
        assert epoch(task) != epoch(task, seed=1)
        assert epoch(task) == epoch(task)

    def test_can_be_entered_anywhere(self, tmp_path):
        task = opened(write_jsonl(tmp_path / "p.jsonl", ROWS))
        whole = list(itertools.islice(task.problems(4), 17))
        assert list(itertools.islice(task.problems(4, 7), 10)) == whole[7:]


class TestColumns:
    def test_may_have_other_names(self, tmp_path):
        path = write_jsonl(tmp_path / "p.jsonl", [{"q": "1+1", "a": 2, "cot": "1+1 is 2"}])
        task = opened(path, prompt_column="q", answer_column="a", demonstration_column="cot")
        assert task.rows[0].answer == "2"
        assert task.rows[0].worked == "1+1 is 2"
        assert task.rows[0].info == {}

    def test_a_missing_one_names_those_that_exist(self, tmp_path):
        message = refused(write_jsonl(tmp_path / "p.jsonl", [{"question": "1+1", "answer": "2"}]))
        assert "p.jsonl:1 has no column 'prompt', only 'question', 'answer': set task.prompt_column" in message

    def test_a_row_that_lacks_one_is_named(self, tmp_path):
        assert "p.jsonl:2 has no column 'answer'" in refused(write_jsonl(tmp_path / "p.jsonl", [ROWS[0], {"prompt": "?"}]))

    def test_no_reference_answers(self, tmp_path):
        path = write_jsonl(tmp_path / "p.jsonl", [{"prompt": "sing"}])
        assert "answer_column=''" in refused(path)
        assert opened(path, answer_column="").rows[0].worked is None

    def test_a_question_must_be_text(self, tmp_path):
        message = refused(write_jsonl(tmp_path / "p.jsonl", [{"prompt": [{"role": "user"}], "answer": "2"}]))
        assert "p.jsonl:1: prompt must be text, got list" in message

    def test_an_empty_question(self, tmp_path):
        assert "p.jsonl:1: prompt is empty" in refused(write_jsonl(tmp_path / "p.jsonl", [{"prompt": " ", "answer": "2"}]))


class TestFaults:
    def test_no_file(self, tmp_path):
        write_jsonl(tmp_path / "problems.jsonl", ROWS)
        assert "did you mean problems.jsonl" in refused(tmp_path / "problem.jsonl")

    def test_unknown_kind(self, tmp_path):
        assert "neither JSONL nor Parquet" in refused(tmp_path / "p.csv")

    @pytest.mark.parametrize("text", ["", "\n\n"])
    def test_empty(self, tmp_path, text):
        (tmp_path / "p.jsonl").write_text(text)
        assert "holds no rows" in refused(tmp_path / "p.jsonl")

    def test_broken_json_is_located(self, tmp_path):
        (tmp_path / "p.jsonl").write_text(json.dumps(ROWS[0]) + '\n\n{"prompt": \n')
        assert "p.jsonl:3 is not valid JSON" in refused(tmp_path / "p.jsonl")

    def test_a_row_that_is_no_object(self, tmp_path):
        assert "p.jsonl:1 holds a list" in refused(write_jsonl(tmp_path / "p.jsonl", [["1+1", "2"]]))

    def test_not_text(self, tmp_path):
        (tmp_path / "p.jsonl").write_bytes(b"\xff\xfe\x00")
        assert "not UTF-8" in refused(tmp_path / "p.jsonl")

    def test_not_parquet(self, tmp_path):
        (tmp_path / "p.parquet").write_text("hello")
        assert "not a Parquet file" in refused(tmp_path / "p.parquet")

    def test_unknown_option(self, tmp_path):
        assert "no option 'splt': did you mean split" in refused(write_jsonl(tmp_path / "p.jsonl", ROWS), options={"splt": "x"})

    def test_a_split_of_a_file(self, tmp_path):
        assert "leave it out" in refused(write_jsonl(tmp_path / "p.jsonl", ROWS), options={"split": "test"})


class TestFolder:
    def test_of_shards_reads_the_training_split(self, tmp_path):
        write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", ROWS[:2])
        write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", ROWS[2:4])
        write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", ROWS[4:])
        assert opened(tmp_path).size == 4
        assert opened(tmp_path, options={"split": "test"}).size == 1
        assert "no files of the split 'dev'" in refused(tmp_path, options={"split": "dev"})

    def test_of_jsonl_without_splits_reads_all(self, tmp_path):
        write_jsonl(tmp_path / "a.jsonl", ROWS[:2])
        write_jsonl(tmp_path / "b.jsonl", ROWS[2:])
        assert opened(tmp_path).size == 5

    def test_of_several_data_sets(self, tmp_path):
        for name in ("main", "socratic"):
            write_parquet(tmp_path / name / "train-00000-of-00001.parquet", ROWS)
        assert "several data sets" in refused(tmp_path)
        assert opened(tmp_path / "main").size == 5

    def test_of_a_saved_data_set_dictionary(self, tmp_path):
        (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
        save_to_disk(tmp_path / "train", ROWS)
        save_to_disk(tmp_path / "test", ROWS[:1])
        assert opened(tmp_path).size == 5
        assert opened(tmp_path, options={"split": "test"}).size == 1
        assert "no split 'dev', only train, test" in refused(tmp_path, options={"split": "dev"})

    def test_of_a_single_saved_data_set_has_no_splits(self, tmp_path):
        assert "single data set" in refused(save_to_disk(tmp_path / "saved", ROWS), options={"split": "test"})

    def test_without_data(self, tmp_path):
        assert "holds no data set" in refused(tmp_path)
