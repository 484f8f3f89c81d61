using Cbd.Control;
using Cbd.Control.Verbs;
using Cbd.Disks;
using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class TextOfSizesAndWords
{
    [Theory]
    [InlineData("0", 0)]
    [InlineData("512", 512)]
    [InlineData("512B", 512)]
    [InlineData("4k", 4096)]
    [InlineData("512M", 512L << 20)]
    [InlineData("4GiB", 4L << 30)]
    [InlineData("4GB", 4L << 30)]
    [InlineData("1T", 1L << 40)]
    [InlineData("7E", 7L << 60)]
    [InlineData("9223372036854775807", long.MaxValue)]
    public void A_size_is_bytes_or_has_a_unit_of_1024(string text, long sizeBytes)
    {
        Assert.True(SizeText.TryParse(text, out var parsed, out _));
        Assert.Equal(sizeBytes, parsed);
    }

    [Theory]
    [InlineData("")]
    [InlineData("M")]
    [InlineData("-1")]
    [InlineData("1.5G")]
    [InlineData("5X")]
    [InlineData("5Mb/s")]
    [InlineData("8E")]
    [InlineData("9223372036854775808")]
    [InlineData("99999999999999999999999")]
    public void What_is_not_a_size_or_does_not_fit_is_refused_by_name(string text)
    {
        Assert.False(SizeText.TryParse(text, out _, out var error));
        Assert.Contains($"'{text}'", error);
    }

    [Fact]
    public void A_printed_size_reads_back_as_the_same_number() => Gen.Long[0, long.MaxValue].Sample(bytes =>
        SizeText.TryParse(VerbOutput.Size(bytes), out var parsed, out _) && parsed == bytes);

    [Theory]
    [InlineData("a b  c", new[] { "a", "b", "c" })]
    [InlineData("a 'b c' \"d e\"", new[] { "a", "b c", "d e" })]
    [InlineData(@"a\ b ""c\""d"" 'e\f'", new[] { "a b", "c\"d", @"e\f" })]
    [InlineData("a ''", new[] { "a", "" })]
    [InlineData("x='y z'w", new[] { "x=y zw" })]
    [InlineData("  ", new string[0])]
    public void A_line_is_split_as_a_shell_splits_plain_words(string line, string[] words) =>
        Assert.Equal(words, CommandWords.Split(line));

    [Theory]
    [InlineData("a 'b")]
    [InlineData("a \"b")]
    [InlineData(@"a b\")]
    public void A_line_that_ends_in_a_quote_is_refused(string line) =>
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => CommandWords.Split(line)).Kind);

    [Fact]
    public void A_message_is_one_line_whatever_is_quoted_in_it() =>
        Assert.Equal(@"a\nb\tc\x1b[31m\x85", OneLine.From("a\nb\tc\x1b[31m\x85"));
}
