from gatewise.inference.rivals import changes_in_words, refit_of_rival


def test_many_changes_are_cut_and_none_is_said():
    assert changes_in_words(list("abcdef")) == "a; b; c; d; e; f"
    assert changes_in_words(list("abcdefgh")) == "a; b; c; d; e; f; and 2 more"
    assert changes_in_words([]) == "no sign, significance or share"


def test_rivals_are_numbered_from_one():
    assert refit_of_rival(3) == "n_starts=1, init=result_.rivals[2].model"
