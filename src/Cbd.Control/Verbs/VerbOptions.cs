using System.CommandLine;
using System.CommandLine.Parsing;
using System.Globalization;
using Cbd.Disks;

namespace Cbd.Control.Verbs;

/// <summary>Options whose errors are one line with the value and what was expected.</summary>
internal static class VerbOptions
{
    public static Option<bool> Flag(string name, string? alias, string description) => new(name, Aliases(alias))
    {
        Description = description,
        Arity = ArgumentArity.Zero,
    };

    public static Option<string?> Text(string name, string? alias, string description, string valueName, bool required = false)
        => new(name, Aliases(alias))
        {
            Description = description,
            HelpName = valueName,
            Required = required,
            Arity = ArgumentArity.ExactlyOne,
        };

    /// <summary>Any number of texts, each behind the option's name.</summary>
    public static Option<string[]> Texts(string name, string description, string valueName) => new(name)
    {
        Description = description,
        HelpName = valueName,
        Arity = ArgumentArity.OneOrMore,
        AllowMultipleArgumentsPerToken = false,
    };

    /// <summary>A whole number; its range is the request's to check.</summary>
    public static Option<int?> Number(string name, string? alias, string description, bool required = false)
        => new(name, Aliases(alias))
        {
            Description = description,
            HelpName = "N",
            Required = required,
            Arity = ArgumentArity.ExactlyOne,
            CustomParser = result => ParseNumber(result, name),
        };

    public static Option<int> NumberOr(string name, string? alias, string description, int otherwise) => new(name, Aliases(alias))
    {
        Description = description,
        HelpName = "N",
        Arity = ArgumentArity.ExactlyOne,
        DefaultValueFactory = _ => otherwise,
        CustomParser = result => ParseNumber(result, name) ?? 0,
    };

    public static Option<long?> Size(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "SIZE",
        Arity = ArgumentArity.ExactlyOne,
        CustomParser = result =>
        {
            if (SizeText.TryParse(result.Tokens[0].Value, out var sizeBytes, out var error))
                return sizeBytes;
            result.AddError($"{name}: {error}");
            return null;
        },
    };

    /// <summary>One of a few words.</summary>
    public static Option<string> Choice(string name, string? alias, string description, string otherwise, params string[] words)
        => new(name, Aliases(alias))
        {
            Description = description,
            HelpName = string.Join('|', words),
            Arity = ArgumentArity.ExactlyOne,
            DefaultValueFactory = _ => otherwise,
            CustomParser = result =>
            {
                var word = result.Tokens[0].Value;
                if (!words.Contains(word))
                    result.AddError($"{name} is '{word}'; use {string.Join(" or ", words)}");
                return word;
            },
        };

    private static int? ParseNumber(ArgumentResult result, string name)
    {
        var text = result.Tokens[0].Value;
        if (int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out var number))
            return number;
        result.AddError($"{name} is '{text}', which is not a whole number of at most {int.MaxValue}");
        return null;
    }

    private static string[] Aliases(string? alias) => alias is null ? [] : [alias];
}
